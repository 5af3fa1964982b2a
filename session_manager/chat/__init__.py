"""What a chat page's tool needs beyond sessions, whatever page it is: ``openwebui_tool.py`` is one."""

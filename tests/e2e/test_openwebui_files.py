"""Files between a real Open WebUI and a session: what users attach, what code makes, and what is not theirs."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from .openwebui import User, valves

pytestmark = pytest.mark.timeout(900)

LIST = "import os\nprint(sorted(name for name in os.listdir() if name[0] != '.'))"


def test_a_picture_that_the_user_attached_is_read(user: User) -> None:
    file = io.BytesIO()
    Image.new("RGB", (123, 45), "red").save(file, "PNG")
    attached = {**user.upload("photo.png", file.getvalue()), "type": "image"}
    chat = user.chat()
    code = "from PIL import Image\nwith Image.open('photo.png') as picture: print(picture.size)"
    assert "(123, 45)" in chat.run(code, [attached])["content"]
    chat.run("import os\nos.remove('photo.png')")
    assert "photo.png" in chat.run(LIST)["content"], "it is of this chat, also where a later message has no files"


def test_what_code_has_changed_is_not_put_back(user: User) -> None:
    chat = user.chat()
    attached = user.upload("notes.txt", b"as uploaded")
    chat.run("with open('notes.txt', 'a') as file: file.write(' and changed')", [attached])
    for _ in range(2):
        content = chat.run("with open('notes.txt') as file: print(file.read())", [attached])["content"]
        assert "as uploaded and changed" in content


def test_another_user_s_file_is_named_and_not_read(admin: User, user: User) -> None:
    foreign = admin.upload("salaries.csv", b"secret")
    content = user.chat().run(LIST, [foreign])["content"]
    assert "'salaries.csv' can't be had: it is not there, or not this user's to read" in content
    assert "[]" in content


def test_another_user_s_chat_is_not_reached(admin: User, user: User) -> None:
    mine, theirs = admin.chat(), user.chat()
    mine.run("secret = 'mine'")
    theirs.id, theirs.last = mine.id, mine.last
    with pytest.raises(AssertionError, match=r"/api/chat/completions: 40[134]"):
        theirs.run("print(secret)")
    assert "mine" in mine.run("print(secret)")["content"]


def test_html_is_embedded(user: User) -> None:
    code = "from IPython.display import HTML, display\n" + "".join(
        f"display(HTML('<style>td {{color: red}}</style><table><tr><td>{n}</td></tr></table>'))\n" for n in range(6)
    )
    embeds = user.chat().run(code)["embeds"]
    assert len(embeds) == 4
    assert all(f"<td>{n}</td>" in html and "iframe:height" in html for n, html in enumerate(embeds))


def test_a_table_is_text_for_the_model_and_html_for_the_user(user: User) -> None:
    answer = user.chat().run("import pandas as pd\npd.DataFrame({'a': [41, 42]})")
    assert "1  42" in answer["content"] and "<td>" not in answer["content"]
    assert "<td>42</td>" in answer["embeds"][0]


def test_what_is_too_much_or_too_large_is_said(admin: User, user: User) -> None:
    with valves(admin, MOST_UPLOADS=2, LARGEST_UPLOAD=1000):
        code = "for name in 'abc': open(name, 'w').write(name)\nopen('0-large', 'wb').write(bytes(1001))"
        answer = user.chat().run(code)
    assert [file["name"] for file in answer["files"]] == ["a", "b"]
    assert "'0-large' can't be handed to the user: it is larger than 1000 bytes" in answer["content"]
    assert "More files were made than are handed to the user" in answer["content"]


def test_an_administrator_can_keep_files_apart(admin: User, user: User) -> None:
    attached = user.upload("data.csv", b"1")
    with valves(admin, UPLOAD_FILES=False, INJECT_UPLOADED_FILES=False):
        answer = user.chat().run(f"open('made', 'w').close()\n{LIST}", [attached])
    assert "['made']" in answer["content"] and not answer.get("files")

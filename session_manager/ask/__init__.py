"""A model that answers a question by running Python: as many calls as it needs, over one session.

``conversation`` is the loop; ``endpoint`` speaks to the model, ``streaming`` puts its replies together,
``transcript`` writes down what was said and run. What a person sees of it is in ``cli``.
"""

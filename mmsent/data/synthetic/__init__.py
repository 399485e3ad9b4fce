"""A synthetic data set for a first run without any download. Pillow only, no torch.

posts.py      the model behind it, and writing the data set
texts.py      the texts: templates and words
images.py     the images: faces.py, weather.py or patterns.py, made with the colours and shapes of canvas.py
"""

"""Stage one: posts to embeddings, stored in a cache.

extract.py     the whole job for a data set
units.py       the rows that an extraction has to encode
engine.py      encoding on this machine; ray_engine.py on a Ray cluster
pipeline.py    decoding, encoding and storing at the same time
batches.py     batches that fit the device's memory
repair.py      checking a cache against its data set and encoding damaged rows again
new_posts.py   posts that belong to no data set, encoded as a cache was
cache/         the HDF5 cache itself
"""

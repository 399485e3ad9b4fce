"""Stage one: posts to embeddings, stored in a cache.

extract.py            the whole extraction of a data set
target.py             the cache that it writes: its place, its lock, what is refused
extraction_record.py  what a cache records of its extractions
units.py              rows that are encoded together on another machine
engine.py             encoding on this machine; ray_engine.py on a Ray cluster (ray_cluster.py connects to it)
pipeline.py           decoding, encoding and storing at the same time
batches.py            which rows share a batch; content hashes and decoded views
changes.py            posts that are no longer what was encoded
repair.py             checking a cache against its data set, and encoding damaged rows again
new_posts.py          posts outside of a data set, encoded like those of a cache
cache/                the HDF5 cache itself
"""

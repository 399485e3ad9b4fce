"""The service behind `mmsent serve`: runs answer over HTTP, with a page to try them and a page to review predictions.

    limits.py      what a client may ask for, and how much work may wait
    requests.py    a request's bytes to posts
    batching.py    posts of many requests through the encoders together
    service.py     runs and encoders: decode, predict, explain
    review.py      the predictions of a whole run beside its posts
    monitoring.py  numbers for Prometheus
    guard.py       key, host, origin and headers around every request
    schemas.py, page_schemas.py
                   what requests and answers look like
    endpoints.py, review_endpoints.py, compare_endpoints.py, map_endpoints.py, pages.py
                   what is answered at which address
    app.py         all of them together, with their errors
    server.py      the process: listening, draining on SIGTERM
    static/        the pages: HTML in one frame, CSS and JavaScript

FastAPI, uvicorn and the rest come with `pip install 'mmsent[serve]'`; nothing here is imported before that was checked.
"""

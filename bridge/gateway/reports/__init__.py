"""Workers in any language report over HTTP: the way in (`ingest.py`), what may be sent (`bodies.py`,
`parameters.py`), how it is read (`reading.py`) and brought to Redis (`delivery.py`).
"""

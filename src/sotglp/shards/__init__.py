"""Images in shards: files, WebDataset archives, Parquet and Arrow tables, on this machine or elsewhere by fsspec."""

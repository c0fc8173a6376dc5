"""Predictions of any number of images, shard by shard, which can be interrupted and resumed."""

"""The frozen backbone: open_clip models, their image and text towers, weights and fingerprints."""

from sotglp.backbone.backbone import Backbone

__all__ = ["Backbone"]

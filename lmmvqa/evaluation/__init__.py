"""Evaluation by the field's protocol: metric, predictions, protocols, ablations, report."""

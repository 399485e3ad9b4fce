"""Trained heads at work: logits, votes, predictions for new posts, explanations."""

"""What trained heads compute: logits, votes, predictions for new posts, explanations."""

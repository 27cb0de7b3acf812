"""scale: from one picture to a hundred million, on one machine or a cluster."""

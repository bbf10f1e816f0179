"""HTTP: requests in, answers and pages out."""

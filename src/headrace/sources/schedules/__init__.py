"""The calendar: expressions, the times they mean, and the source that keeps to them."""

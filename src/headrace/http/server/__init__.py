"""The HTTP/1.1 server: connections, and the application behind them."""

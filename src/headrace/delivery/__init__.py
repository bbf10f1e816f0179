"""How a batch reaches its function as promised; read `worker` first."""

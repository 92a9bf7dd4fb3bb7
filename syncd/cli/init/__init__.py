"""`syncd init`: writes a first configuration."""

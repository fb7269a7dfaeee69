"""The bridges to BasicSR, MMagic and spandrel; importing one of the first two registers everything with it."""

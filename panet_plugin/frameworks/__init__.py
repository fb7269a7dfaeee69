"""The bridges to BasicSR and MMagic; importing one of them registers everything in that framework."""

"""The same-host carrier: what stands behind the machine's connections within one host."""

"""Who is there: keys, proofs, certificates, and who is let in."""

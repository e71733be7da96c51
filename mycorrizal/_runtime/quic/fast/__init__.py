"""The fast packet path: aioquic's connection, with its hot paths written again in terms of its private parts."""

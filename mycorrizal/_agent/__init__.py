"""What an ``Agent`` is put together from. Internal; ``mycorrizal.agent`` is the door."""

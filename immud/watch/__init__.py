"""What the kernel and udev announce, as values. An event is a hint: the state is read, not kept."""

/* The yardstick: immud's system calls without an interpreter. Built by the benchmark, not shipped.
 *
 * Clones of /usr (read-only), /etc and /var (writable), each with a peer group of its own, moved
 * into place; the attribute of / ; READY=1.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/mount.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 4
#endif
#define RECURSIVE 0x8000 /* AT_RECURSIVE */
#define READ_ONLY 1      /* MOUNT_ATTR_RDONLY */

struct attributes {
	uint64_t set, clear, propagation, userns_fd;
};

static void must(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
}

static void set(int fd, const char *path, unsigned flags, struct attributes attributes)
{
	must(syscall(SYS_mount_setattr, fd, path, flags, &attributes, sizeof attributes), "mount_setattr");
}

static void attach(const char *path, int read_only)
{
	int fd = syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | O_CLOEXEC | RECURSIVE);

	must(fd, path);
	set(fd, "", AT_EMPTY_PATH | RECURSIVE, (struct attributes){.propagation = MS_PRIVATE});
	set(fd, "", AT_EMPTY_PATH | RECURSIVE, (struct attributes){.propagation = MS_SHARED});
	if (read_only)
		set(fd, "", AT_EMPTY_PATH | RECURSIVE, (struct attributes){.set = READ_ONLY});
	else
		set(fd, "", AT_EMPTY_PATH, (struct attributes){.clear = READ_ONLY});
	must(syscall(SYS_move_mount, fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH), path);
	close(fd);
}

static void ready(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *name = getenv("NOTIFY_SOCKET");
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (!name || strlen(name) >= sizeof address.sun_path)
		exit(2);
	memcpy(address.sun_path, name, strlen(name));
	if (name[0] == '@')
		address.sun_path[0] = 0;
	must(fd, "socket");
	must(sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&address,
		    offsetof(struct sockaddr_un, sun_path) + strlen(name)), "sendto");
}

int main(void)
{
	attach("/usr", 1);
	attach("/etc", 0);
	attach("/var", 0);
	set(AT_FDCWD, "/", 0, (struct attributes){.set = READ_ONLY});
	ready();
	pause(); /* like a daemon, until it is stopped */
}

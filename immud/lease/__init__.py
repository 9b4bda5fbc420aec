"""A lease: / and /usr writable for one command, and for nobody else.

The command runs in a mount namespace of its own, a slave of the host's: what is
unmounted there goes here too, and a pulled drive is not held. Who asks for a lease
stays who they are, with their terminal, environment and place in the shell's job
control: the process that asked becomes the command. What ends with it is a
transient service, whose control group it has joined:

    who asks                      the watcher               the service's process
    StartTransientUnit -------------------------------->    a shell, which reads a pipe
    unshare
    forks ----------------------> holds the pipe open,
    both join the control group   waits for the end
    writes the record             of who asks
    makes / and /usr writable
    executes the command
    ends -----------------------> ends -------------------> ends
                                                            PID 1 kills what is left, and
                                                            runs lease-end: what left the
                                                            control group, record, journal

Kill any of them and the rest follows. No daemon is needed: it reads the records. Like
phase 1 this needs no library, since to start an interpreter is most of what a lease
costs; the service's process is a shell for the same reason.
"""

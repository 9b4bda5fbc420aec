"""org.immud1 on the system bus, from the socket up.

stream      whole messages and their descriptors over one socket
adapter     messages as calls, replies and signals; the one file that knows dbus-next
vtable      interfaces as tables; standard: those every object has
server      objects on a connection: dispatch, change signals, introspection
manager, mount, tomb, job, logcontrol
            what our objects say and take (names: their paths, options: their a{sv},
            secret: passphrases as descriptors)
tree        all of them, following the service
polkit      who may change something
appear, link
            connecting when there is a bus, and again when it comes back
"""

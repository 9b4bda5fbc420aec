"""org.immud1 on the system bus, from the socket up.

stream    whole messages and their descriptors over one socket
adapter   messages as calls, replies and signals; the one file that knows dbus-next
server    objects, properties and introspection
link      connecting, and connecting again
manager, mount, tomb, job, logcontrol   what the objects say
polkit    who may change something
"""

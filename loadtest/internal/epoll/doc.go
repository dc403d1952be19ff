// Package epoll waits for sockets without the runtime's help, for clients that
// run on the driver's own thread.
//
// A goroutine that waits the usual way is parked, and woken by some other
// thread, which the system under load may have kept from the processor; and
// each parking costs as much as a small request. Here the thread itself sleeps
// in the kernel. Promises: a wait ends no later than was asked for, nothing is
// allocated, and an event that was meant for a socket closed meanwhile can be
// told from one of its successor. A Poller is not safe for concurrent use. It
// knows nothing of what is sent.
package epoll

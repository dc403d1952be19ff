//go:build !unix

package plain

import "syscall"

// supported: nobody can look here whether a caller has gone, so net/http serves.
const supported = false

func gone(syscall.RawConn) bool { return false }

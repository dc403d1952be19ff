// Package systemtest holds nothing but tests: a whole province of real
// processes, driven through the command people type, and broken the way the
// failure table says.
//
// The tests need no root and no network beyond loopback. They build the
// binaries themselves unless QIANMA_BIN names a directory that has them.
package systemtest

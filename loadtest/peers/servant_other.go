//go:build !linux

package peers

import "os/exec"

type credential struct{ Uid, Gid uint32 }

func servant() (id credential, ok bool, err error) { return id, false, nil }

func serve(*exec.Cmd) error { return nil }

func writeBack() {}

package peers

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// servant is the user a server runs as when we are root; ok is false when we
// are not and run it as ourselves.
func servant() (id syscall.Credential, ok bool, err error) {
	if os.Geteuid() != 0 {
		return id, false, nil
	}
	u, err := user.Lookup(pgUser)
	if err != nil {
		return id, false, fmt.Errorf("root cannot run PostgreSQL, and its user is missing: %w", err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, true, nil
}

// serve makes the command run as the servant.
func serve(cmd *exec.Cmd) error {
	id, ok, err := servant()
	if err != nil || !ok {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &id}
	return nil
}

// writeBack waits until what was made is on disk. Making three clusters leaves some
// hundred megabytes to write, and whoever has a log synced meanwhile waits behind them.
func writeBack() { syscall.Sync() }

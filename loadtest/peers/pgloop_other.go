//go:build !linux

package peers

import (
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"qianma/loadtest/drive"
)

func openPostgres([]*pgconn.Config, int, time.Duration) (drive.Target, error) {
	return nil, errors.New("the load generator needs Linux (epoll, /proc)")
}

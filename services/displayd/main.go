// Command displayd is one replica of the display subsystem at one carrier.
package main

import (
	"qianma/display"
	"qianma/services/internal/daemon"
)

func main() {
	daemon.Main("displayd", "citizens, restrictions, rule sets; codes and tokens", display.Open)
}

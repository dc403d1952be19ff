package loadtest

import "qianma/loadtest/client"

var oneConnection = client.Config{PerNode: 1}

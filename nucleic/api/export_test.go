package api

import "qianma/cluster/problem"

// Words shows the table of codes to its test.
func Words() map[string]*problem.Problem { return problems }

// Joined is the outcome of one row in several shards.
var Joined = joined

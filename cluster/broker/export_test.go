package broker

// Sum lets tests forge messages.
var Sum = sumOf

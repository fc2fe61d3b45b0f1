// Command bench measures how fast a receiver acknowledges callbacks and how fast it applies them, on a real etcd and
// kube-apiserver, and prints docs/performance.md. `make bench` runs it.
//
// Absolute numbers drift with the machine and its neighbours, so everything is measured against something else in the same
// run: a naive handler, the disk alone, a bare loop of writes. The runs are interleaved: a round measures each configuration
// once, and what is reported is the median over the rounds, of ratios as well.
//
// The client, the naive handler and the receivers are processes of their own, so that none of them lends another its
// scheduler or its garbage collector.
package main

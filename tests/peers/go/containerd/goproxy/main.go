// goproxy serves containerd's own content store, in Go, on a unix socket: what a proxy plugin costs at the least.
//
//	goproxy SOCKET ROOT
//
// It is the store and the gRPC service that containerd itself runs in its own process, moved behind a proxy plugin, as
// any external content store is. Serves until it is killed.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"google.golang.org/grpc"
)

const maxMessage = 16 << 20 // what containerd's proxy plugin allows

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "goproxy:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: goproxy SOCKET ROOT")
	}
	store, err := local.NewStore(args[1])
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", args[0])
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	contentapi.RegisterContentServer(server, contentserver.New(store))
	return server.Serve(listener)
}

// readrate measures sequential Reads of a blob in a content store on a unix socket.
//
//	readrate SOCKET DIGEST SIZE WINDOW STREAMS PASSES
//
// Each of STREAMS clients has a connection of its own and asks PASSES times for the SIZE bytes of DIGEST in calls of
// WINDOW bytes, one after another. Prints one line of JSON: bytes received and seconds, dialling excluded.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const maxMessage = 16 << 20 // what containerd's proxy plugin allows

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "readrate:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 6 {
		return errors.New("usage: readrate SOCKET DIGEST SIZE WINDOW STREAMS PASSES")
	}
	var numbers [4]int64
	for i, text := range args[2:] {
		number, err := strconv.ParseInt(text, 10, 64)
		if err != nil || number < 1 {
			return fmt.Errorf("%q is no count", text)
		}
		numbers[i] = number
	}
	size, window, streams, passes := numbers[0], numbers[1], int(numbers[2]), numbers[3]
	clients := make([]contentapi.ContentClient, streams)
	for i := range clients {
		conn, err := grpc.NewClient("unix://"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
		if err != nil {
			return err
		}
		defer conn.Close()
		clients[i] = contentapi.NewContentClient(conn)
		if _, err := read(clients[i], args[1], 0, 1); err != nil { // connects
			return err
		}
	}
	type result struct {
		received int64
		err      error
	}
	results := make(chan result)
	began := time.Now()
	for _, client := range clients {
		go func() {
			received, err := readAll(client, args[1], size, window, passes)
			results <- result{received, err}
		}()
	}
	var received int64
	var failed error
	for range clients {
		one := <-results
		received += one.received
		failed = errors.Join(failed, one.err)
	}
	seconds := time.Since(began).Seconds()
	if failed != nil {
		return failed
	}
	if expected := size * passes * int64(streams); received != expected {
		return fmt.Errorf("received %d of %d bytes", received, expected)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"bytes": received, "seconds": seconds})
}

func readAll(client contentapi.ContentClient, digest string, size, window, passes int64) (int64, error) {
	var received int64
	for range passes {
		for at := int64(0); at < size; at += window {
			count, err := read(client, digest, at, min(window, size-at))
			if err != nil {
				return received, err
			}
			received += count
		}
	}
	return received, nil
}

func read(client contentapi.ContentClient, digest string, offset, size int64) (int64, error) {
	stream, err := client.Read(context.Background(), &contentapi.ReadContentRequest{Digest: digest, Offset: offset, Size: size})
	if err != nil {
		return 0, err
	}
	var received int64
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			return received, nil
		}
		if err != nil {
			return received, err
		}
		received += int64(len(response.Data))
	}
}

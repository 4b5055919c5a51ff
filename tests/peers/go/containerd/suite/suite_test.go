// containerd's own content test suite against the content store that answers on a unix socket.
//
//	CONTENT_SOCKET=/run/ipcs/ipcs.sock ./content-suite -test.v -test.run TestProxy
//
// TestProxy calls the store through containerd's proxy client alone; TestMetadata puts containerd's metadata database
// (namespaces, sharing policies) on top of it, as the daemon does. Both write the blob "foobar", and a store that has it
// shares it with the next writer: give each of the two an empty store.
package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/content/testsuite"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func dial() (*grpc.ClientConn, error) {
	socket := os.Getenv("CONTENT_SOCKET")
	if socket == "" {
		return nil, errors.New("CONTENT_SOCKET names no unix socket")
	}
	return grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func direct(ctx context.Context, _ string) (context.Context, content.Store, func() error, error) {
	conn, err := dial()
	if err != nil {
		return nil, nil, nil, err
	}
	return ctx, proxy.NewContentStore(conn), conn.Close, nil
}

func throughMetadata(opts ...metadata.DBOpt) testsuite.StoreInitFn {
	return func(ctx context.Context, root string) (context.Context, content.Store, func() error, error) {
		conn, err := dial()
		if err != nil {
			return nil, nil, nil, err
		}
		db, err := bolt.Open(filepath.Join(root, "metadata.db"), 0o600, nil)
		if err != nil {
			return nil, nil, nil, errors.Join(err, conn.Close())
		}
		closeBoth := func() error { return errors.Join(db.Close(), conn.Close()) }
		ctx = testsuite.SetContextWrapper(ctx, namespaced(db))
		return ctx, metadata.NewDB(db, proxy.NewContentStore(conn), nil, opts...).ContentStore(), closeBoth, nil
	}
}

// Each context that the suite asks for is a namespace of its own.
func namespaced(db *bolt.DB) testsuite.ContextWrapper {
	var count atomic.Uint64
	return func(ctx context.Context, shared bool) (context.Context, func(context.Context) error, error) {
		namespace := fmt.Sprintf("suite-n%d", count.Add(1))
		if shared {
			err := db.Update(func(tx *bolt.Tx) error {
				return metadata.NewNamespaceStore(tx).SetLabel(ctx, namespace, labels.LabelSharedNamespace, "true")
			})
			if err != nil {
				return nil, nil, err
			}
		}
		return namespaces.WithNamespace(ctx, namespace), func(context.Context) error { return nil }, nil
	}
}

func TestProxy(t *testing.T) {
	testsuite.ContentSuite(t, "proxy", direct)
}

func TestMetadata(t *testing.T) {
	testsuite.ContentSuite(t, "metadata", throughMetadata())
	testsuite.ContentCrossNSSharedSuite(t, "metadata", throughMetadata())
	testsuite.ContentCrossNSIsolatedSuite(t, "metadata", throughMetadata(metadata.WithPolicyIsolated))
	testsuite.ContentSharedNSIsolatedSuite(t, "metadata", throughMetadata(metadata.WithPolicyIsolated))
}

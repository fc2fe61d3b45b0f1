package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/openim"
)

// runNaive is the process that the receivers are compared with: it writes each callback to the API server and then answers.
// It checks no token, reads nothing first, merges nothing and stamps nothing. It ends with its standard input.
func runNaive(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(roleNaive, flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig file")
	address := flags.String("address", "", "where to listen")
	namespace := flags.String("namespace", "", "namespace of the groups")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	writer, err := newClientFor(config)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", *address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: naive(writer, *namespace), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		// Nobody writes to it: it ends when the process that started this one does.
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// newClientFor returns a client without a cache and without a limit of its own.
func newClientFor(config *rest.Config) (client.Client, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	scheme, err := openimv1Scheme()
	if err != nil {
		return nil, err
	}
	return client.New(config, client.Options{Scheme: scheme})
}

// naive answers a callback once it is in the API server.
func naive(writer client.Client, namespace string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var told openimv1.GroupInfoSpec
		if err := json.NewDecoder(r.Body).Decode(&told); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		told.ServerName = serverName
		patch, err := json.Marshal(map[string]any{"spec": told})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		object := &openimv1.GroupInfo{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: told.GroupID}}
		err = writer.Patch(r.Context(), object, client.RawPatch(types.MergePatchType, patch))
		if apierrors.IsNotFound(err) {
			object.Spec = told
			err = writer.Create(r.Context(), object)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		// A sender that is gone needs no answer.
		_, _ = w.Write(append(openim.OK().JSON(), '\n'))
	}
}

// crictl (stand-in): the sub-commands that kubeadm uses, and those that a person looks with, over the kubelet's CRI.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1alpha2"
)

const version = "1.20.0-lab"

// fail prints as crictl does and ends the program.
func fail(format string, values ...interface{}) {
	when := time.Now().Format(time.RFC3339)
	fmt.Fprintf(os.Stderr, "time=%q level=fatal msg=%q\n", when, fmt.Sprintf(format, values...))
	os.Exit(1)
}

// eitherVersion asks by the names of CRI v1 first, then v1alpha2: the messages are the same on the wire, and containerd
// 1.6 and 1.7 know both, 2.x only v1.
func eitherVersion(ctx context.Context, method string, request, reply interface{}, connection *grpc.ClientConn,
	invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	newer := strings.Replace(method, "/runtime.v1alpha2.", "/runtime.v1.", 1)
	err := invoke(ctx, newer, request, reply, connection, options...)
	if status.Code(err) != codes.Unimplemented {
		return err
	}
	if older := invoke(ctx, method, request, reply, connection, options...); status.Code(older) != codes.Unimplemented {
		return older
	}
	return err
}

func connect(ctx context.Context, endpoint string) *grpc.ClientConn {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	dial := func(ctx context.Context, path string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	options := []grpc.DialOption{grpc.WithInsecure(), grpc.WithBlock(), grpc.WithContextDialer(dial),
		grpc.WithUnaryInterceptor(eitherVersion)}
	connection, err := grpc.DialContext(ctx, strings.TrimPrefix(endpoint, "unix://"), options...)
	if err != nil {
		fail("connect: connect endpoint '%s', make sure you are running as root and the endpoint has been started: %v",
			endpoint, err)
	}
	return connection
}

// session is one call of the program: where to ask, and the words after the sub-command.
type session struct {
	ctx     context.Context
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
	quiet   bool
	all     bool
	words   []string
}

func (s *session) word() string {
	if len(s.words) == 0 {
		fail("ID or name is missing")
	}
	return s.words[0]
}

func endpointOfFile() string {
	text, err := os.ReadFile("/etc/crictl.yaml")
	if err != nil {
		return ""
	}
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "runtime-endpoint:") {
			return strings.Trim(strings.TrimSpace(strings.SplitN(line, ":", 2)[1]), "\"'")
		}
	}
	return ""
}

func defaultEndpoint() string {
	for _, endpoint := range []string{os.Getenv("CONTAINER_RUNTIME_ENDPOINT"), endpointOfFile()} {
		if endpoint != "" {
			return endpoint
		}
	}
	return "unix:///run/containerd/containerd.sock"
}

func main() {
	endpoint, limit := defaultEndpoint(), 10*time.Second
	ignored := ""
	for _, name := range []string{"r", "runtime-endpoint"} {
		flag.StringVar(&endpoint, name, endpoint, "endpoint of the runtime")
	}
	for _, name := range []string{"i", "image-endpoint", "c", "config"} {
		flag.StringVar(&ignored, name, "", "accepted, not used")
	}
	flag.DurationVar(&limit, "timeout", limit, "limit of one request")
	showVersion := flag.Bool("version", false, "print the version")
	flag.Parse()
	if *showVersion {
		fmt.Printf("crictl version v%s\n", version)
		return
	}
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(1)
	}
	command, known := commands[flag.Arg(0)]
	if !known {
		fail("unknown command %q (this crictl is a stand-in)", flag.Arg(0))
	}
	current := session{}
	options := flag.NewFlagSet(flag.Arg(0), flag.ExitOnError)
	options.BoolVar(&current.quiet, "q", false, "only IDs")
	options.BoolVar(&current.quiet, "quiet", false, "only IDs")
	options.BoolVar(&current.all, "a", false, "all, not only running ones")
	options.BoolVar(&current.all, "all", false, "all, not only running ones")
	options.StringVar(&ignored, "o", "", "accepted, not used")
	options.StringVar(&ignored, "tail", "", "accepted, not used")
	options.Parse(flag.Args()[1:])
	current.words = options.Args()
	if flag.Arg(0) == "pull" {
		limit = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	connection := connect(ctx, endpoint)
	current.ctx = ctx
	current.runtime, current.images = cri.NewRuntimeServiceClient(connection), cri.NewImageServiceClient(connection)
	command(&current)
}

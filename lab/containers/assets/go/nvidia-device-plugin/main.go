// nvidia-device-plugin (SIMULATED) offers the gpus of /var/lib/labgpu/devices to the kubelet over its API for device
// plugins, v1beta1. As NVML for the real plugin, that file is only there when the container runs under the nvidia
// runtime. Called as mps-control-daemon it is what says that MPS is there (SIMULATED: it divides nothing).
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/ioutil"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	"sigs.k8s.io/yaml"
)

const (
	cardList = "/var/lib/labgpu/devices"
	gpu      = "nvidia.com/gpu"
	mpsRoot  = "/mps"
	pollTime = time.Second
	// Where NVIDIA's toolkit looks for mounts that name GPUs.
	mountRoot = "/var/run/nvidia-container-devices"
)

type shared struct {
	Name     string `json:"name"`
	Rename   string `json:"rename,omitempty"`
	Devices  string `json:"devices"`
	Replicas int    `json:"replicas"`
}

type replicated struct {
	RenameByDefault            bool     `json:"renameByDefault,omitempty"`
	FailRequestsGreaterThanOne *bool    `json:"failRequestsGreaterThanOne,omitempty"`
	Resources                  []shared `json:"resources,omitempty"`
}

// configuration is what of the real plugin's file counts here; what it does not know it passes over, as that does.
type configuration struct {
	Version string `json:"version"`
	Flags   struct {
		MigStrategy     string `json:"migStrategy"`
		FailOnInitError bool   `json:"failOnInitError"`
	} `json:"flags"`
	Sharing struct {
		TimeSlicing replicated  `json:"timeSlicing"`
		MPS         *replicated `json:"mps,omitempty"`
	} `json:"sharing"`
}

var (
	config   = configuration{Version: "v1"}
	resource = gpu
	endpoint = "nvidia-gpu.sock"
	replicas = 1
	onlyOne  = false
)

// configure reads the file of CONFIG_FILE, and logs what it runs with, as the real plugin does.
func configure() error {
	config.Flags.MigStrategy = "none"
	if path := os.Getenv("CONFIG_FILE"); path != "" {
		text, err := ioutil.ReadFile(path)
		if err != nil {
			return fmt.Errorf("unable to load config: %v", err)
		}
		if err := yaml.Unmarshal(text, &config); err != nil {
			return fmt.Errorf("unable to load config: %v", err)
		}
	}
	config.Flags.FailOnInitError = os.Getenv("FAIL_ON_INIT_ERROR") != "false"
	how := &config.Sharing.TimeSlicing
	if config.Sharing.MPS != nil {
		how = config.Sharing.MPS
	}
	for index := range how.Resources {
		row := &how.Resources[index]
		if row.Replicas < 2 {
			return fmt.Errorf("unable to load config: number of replicas must be >= 2")
		}
		row.Devices = "all"
		if how.RenameByDefault {
			row.Rename, resource, endpoint = row.Name+".shared", row.Name+".shared", "nvidia-gpu.shared.sock"
		}
		replicas = row.Replicas
	}
	onlyOne = replicas > 1 && how.FailRequestsGreaterThanOne != nil && *how.FailRequestsGreaterThanOne
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	log.Printf("\nRunning with config:\n%s", text)
	return nil
}

// offered gives the devices that the kubelet is told of: each gpu, or so many shares of each.
func offered() ([]*api.Device, error) {
	found, err := gpus()
	if err != nil || replicas < 2 {
		return found, err
	}
	shares := []*api.Device{}
	for number := 0; number < replicas; number++ {
		for _, one := range found {
			shares = append(shares, &api.Device{ID: fmt.Sprintf("%s::%d", one.ID, number), Health: one.Health})
		}
	}
	return shares, nil
}

// unshared gives the gpus of some devices, each once.
func unshared(ids []string) []string {
	found, seen := []string{}, map[string]bool{}
	for _, id := range ids {
		if id = strings.SplitN(id, "::", 2)[0]; !seen[id] {
			seen[id] = true
			found = append(found, id)
		}
	}
	return found
}

func gpus() ([]*api.Device, error) {
	text, err := ioutil.ReadFile(cardList)
	if err != nil {
		return nil, err
	}
	found := []*api.Device{}
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Fields(line); len(fields) == 2 {
			found = append(found, &api.Device{ID: fields[0], Health: fields[1]})
		}
	}
	return found, nil
}

type plugin struct{}

func (plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (plugin) ListAndWatch(_ *api.Empty, stream api.DevicePlugin_ListAndWatchServer) error {
	last := ""
	for {
		found, err := offered()
		if err != nil {
			return err
		}
		if now := fmt.Sprint(found); now != last {
			last = now
			for _, gpu := range found {
				log.Printf("SIMULATED gpu %s is %s", gpu.ID, gpu.Health)
			}
			if err := stream.Send(&api.ListAndWatchResponse{Devices: found}); err != nil {
				return err
			}
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-time.After(pollTime):
		}
	}
}

func (plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		if wanted := len(container.DevicesIDs); onlyOne && wanted > 1 {
			return nil, fmt.Errorf("invalid allocation request for %q: invalid request: maximum request size for "+
				"shared resources is 1; found %d", resource, wanted)
		}
		chosen := unshared(container.DevicesIDs)
		ids := strings.Join(chosen, ",")
		log.Printf("Allocate %s", ids)
		response := &api.ContainerAllocateResponse{Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": ids}}
		if strings.Contains(os.Getenv("DEVICE_LIST_STRATEGY"), "volume-mounts") {
			// The variable then holds the path of the mounts, whatever other strategy is named beside it.
			response.Envs["NVIDIA_VISIBLE_DEVICES"] = mountRoot
			for _, id := range chosen {
				mount := &api.Mount{HostPath: "/dev/null", ContainerPath: filepath.Join(mountRoot, id)}
				response.Mounts = append(response.Mounts, mount)
			}
		}
		if config.Sharing.MPS != nil {
			response.Envs["CUDA_MPS_PIPE_DIRECTORY"] = filepath.Join(mpsRoot, resource, "pipe")
			host := filepath.Join(os.Getenv("MPS_ROOT"), resource, "pipe")
			pipe := &api.Mount{HostPath: host, ContainerPath: filepath.Join(mpsRoot, resource, "pipe")}
			response.Mounts = append(response.Mounts, pipe)
		}
		answer.ContainerResponses = append(answer.ContainerResponses, response)
	}
	return answer, nil
}

func (plugin) PreStartContainer(
	context.Context, *api.PreStartContainerRequest,
) (*api.PreStartContainerResponse, error) {
	return &api.PreStartContainerResponse{}, nil
}

func (plugin) GetPreferredAllocation(
	context.Context, *api.PreferredAllocationRequest,
) (*api.PreferredAllocationResponse, error) {
	return &api.PreferredAllocationResponse{}, nil
}

func serve(path string) (*grpc.Server, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, plugin{})
	go server.Serve(listener)
	return server, nil
}

func register() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", address)
	}
	options := []grpc.DialOption{grpc.WithInsecure(), grpc.WithBlock(), grpc.WithContextDialer(dial)}
	connection, err := grpc.DialContext(ctx, api.KubeletSocket, options...)
	if err != nil {
		return err
	}
	defer connection.Close()
	request := &api.RegisterRequest{
		Version: api.Version, Endpoint: endpoint, ResourceName: resource, Options: &api.DevicePluginOptions{}}
	_, err = api.NewRegistrationClient(connection).Register(ctx, request)
	return err
}

// round serves and registers once, and ends when the kubelet has made its socket anew.
func round() error {
	before, err := os.Stat(api.KubeletSocket)
	if err != nil {
		return err
	}
	path := filepath.Join(api.DevicePluginPath, endpoint)
	server, err := serve(path)
	if err != nil {
		return err
	}
	defer server.Stop()
	if err := register(); err != nil {
		return err
	}
	log.Printf("Registered device plugin for '%s' with Kubelet", resource)
	for {
		time.Sleep(pollTime)
		now, err := os.Stat(api.KubeletSocket)
		if err != nil || !os.SameFile(before, now) || !now.ModTime().Equal(before.ModTime()) {
			log.Printf("inotify: %s created, restarting.", api.KubeletSocket)
			return nil
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("own socket is gone: %v", err)
		}
	}
}

// daemon is MPS's, as far as others see it: the folder of its pipe, and the file that says that it is ready.
func daemon() {
	if len(os.Args) > 1 && os.Args[1] == "mount-shm" {
		log.Print("SIMULATED: no memory is mounted")
		if err := os.MkdirAll(filepath.Join(mpsRoot, "shm"), 0755); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := configure(); err != nil {
		log.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(mpsRoot, resource, "pipe"), 0755); err != nil {
		log.Fatal(err)
	}
	if err := ioutil.WriteFile(filepath.Join(mpsRoot, ".ready"), nil, 0644); err != nil {
		log.Fatal(err)
	}
	log.Printf("Staring MPS daemon for %s (SIMULATED: it divides nothing)", resource)
	for {
		time.Sleep(time.Hour)
	}
}

func main() {
	log.SetFlags(log.LstdFlags)
	if filepath.Base(os.Args[0]) == "mps-control-daemon" {
		daemon()
		return
	}
	log.Print("Starting NVIDIA Device Plugin (SIMULATED by the lab, answers as v0.17.1)")
	if err := configure(); err != nil {
		log.Fatalf("error starting plugins: %v", err)
	}
	found, err := gpus()
	if err != nil || len(found) == 0 {
		log.Print("Incompatible strategy detected auto")
		log.Print("If this is a GPU node, did you configure the NVIDIA Container Toolkit?")
		if os.Getenv("FAIL_ON_INIT_ERROR") != "false" {
			log.Fatal("failed to create resource managers: no gpus visible (SIMULATED)")
		}
		log.Print("No devices found. Waiting indefinitely.")
		for {
			time.Sleep(time.Hour)
		}
	}
	for config.Sharing.MPS != nil {
		if _, err := os.Stat(filepath.Join(mpsRoot, ".ready")); err == nil {
			log.Printf("MPS daemon is healthy resource=%q", resource)
			break
		}
		log.Print("Failed to start plugin: error waiting for MPS daemon: error checking MPS daemon health (SIMULATED)")
		time.Sleep(5 * pollTime)
	}
	for {
		if err := round(); err != nil {
			log.Printf("Could not register with the kubelet, trying again: %v", err)
			time.Sleep(2 * time.Second)
		}
	}
}

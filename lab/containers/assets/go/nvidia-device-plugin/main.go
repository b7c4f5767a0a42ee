// nvidia-device-plugin (SIMULATED) offers the gpus of /var/lib/labgpu/devices to the kubelet over its API for device
// plugins, v1beta1. As NVML for the real plugin, that file is only there when the container runs under the nvidia
// runtime.
package main

import (
	"context"
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
)

const (
	cardList = "/var/lib/labgpu/devices"
	resource = "nvidia.com/gpu"
	endpoint = "nvidia-gpu.sock"
	pollTime = time.Second
	// Where NVIDIA's toolkit looks for mounts that name GPUs.
	mountRoot = "/var/run/nvidia-container-devices"
)

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
		found, err := gpus()
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
		ids := strings.Join(container.DevicesIDs, ",")
		log.Printf("Allocate %s", ids)
		response := &api.ContainerAllocateResponse{Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": ids}}
		if strings.Contains(os.Getenv("DEVICE_LIST_STRATEGY"), "volume-mounts") {
			// The variable then holds the path of the mounts, whatever other strategy is named beside it.
			response.Envs["NVIDIA_VISIBLE_DEVICES"] = mountRoot
			for _, id := range container.DevicesIDs {
				mount := &api.Mount{HostPath: "/dev/null", ContainerPath: filepath.Join(mountRoot, id)}
				response.Mounts = append(response.Mounts, mount)
			}
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

func main() {
	log.SetFlags(log.LstdFlags)
	log.Print("Starting NVIDIA Device Plugin (SIMULATED by the lab, answers as v0.17.1)")
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
	for {
		if err := round(); err != nil {
			log.Printf("Could not register with the kubelet, trying again: %v", err)
			time.Sleep(2 * time.Second)
		}
	}
}

// nvidia-device-plugin (SIMULATED) offers the gpus of /var/lib/labgpu/devices to the kubelet over its API for device
// plugins, v1beta1, and with a MIG strategy the parts of /var/lib/labgpu/parts, as they were when it started. As NVML
// for the real plugin, those files are only there when the container runs under the nvidia runtime, or by the host's
// root where it hands gpus out by CDI. Called as mps-control-daemon it is what says that MPS is there (SIMULATED: it
// divides nothing).
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/ioutil"
	"log"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"

	"google.golang.org/grpc"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	"sigs.k8s.io/yaml"
)

const (
	gpu      = "nvidia.com/gpu"
	mpsRoot  = "/mps"
	pollTime = time.Second
	// Where NVIDIA's toolkit looks for mounts that name GPUs.
	mountRoot = "/var/run/nvidia-container-devices"
	// Where the real plugin's manifest has the host's root and containerd looks for specifications, and its kind there.
	hostRoot = "/driver-root"
	cdiRoot  = "/var/run/cdi"
	cdiKind  = "k8s.device-plugin.nvidia.com/gpu"
	labgpu   = "/var/lib/labgpu"
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
	shares   = gpu // the name that shares of whole gpus go under
	replicas = 1
	onlyOne  = false
	byCDI    = strings.Contains(os.Getenv("DEVICE_LIST_STRATEGY"), "cdi-cri")
	enabled  = regexp.MustCompile(`(?m)^    MIG Mode\n\s+Current\s+: Enabled$`)
)

// place gives where a file about the lab's gpus is for this container.
func place(name string) string {
	if byCDI {
		return filepath.Join(hostRoot, labgpu, name)
	}
	return filepath.Join(labgpu, name)
}

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
			row.Rename, shares = row.Name+".shared", row.Name+".shared"
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

type part struct{ gpu, id, profile string }

// readParts gives the parts of gpus, in their order.
func readParts() []part {
	text, _ := ioutil.ReadFile(place("parts"))
	found := []part{}
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Fields(line); len(fields) == 3 {
			found = append(found, part{fields[0], fields[1], fields[2]})
		}
	}
	return found
}

// divided says whether the mode of a gpu is MIG's.
func divided(id string) bool {
	text, _ := ioutil.ReadFile(place("report-" + id))
	return enabled.Match(text)
}

// resources gives by resource the devices that are offered as it, each with its gpu: NVIDIA's rules of `none`, `single`
// and `mixed`, and their words (k8s-device-plugin, internal/rm/device_map.go).
func resources() (map[string]map[string]string, error) {
	strategy, found := config.Flags.MigStrategy, map[string]map[string]string{}
	list, err := gpus()
	if err != nil {
		return nil, err
	}
	add := func(name, id, owner string) {
		if found[name] == nil {
			found[name] = map[string]string{}
		}
		found[name][id] = owner
	}
	whole, profiles := 0, map[string]bool{}
	for index, one := range list {
		if strategy == "none" || !divided(one.ID) {
			add(gpu, one.ID, one.ID)
			whole++
			continue
		}
		count := 0
		for _, each := range readParts() {
			if each.gpu != one.ID {
				continue
			}
			count++
			profiles[each.profile] = true
			if strategy == "single" {
				add(gpu, each.id, each.gpu)
			} else {
				add("nvidia.com/mig-"+strings.Replace(each.profile, "+", ".", -1), each.id, each.gpu)
			}
		}
		const wrong = "invalid MIG configuration: at least one device with migEnabled=true was not configured correctly"
		if count == 0 && strategy == "single" {
			return nil, fmt.Errorf("%s: device %d has no MIG devices configured", wrong, index)
		} else if count == 0 {
			log.Printf("device %d has no MIG devices configured", index)
		}
	}
	if strategy == "single" && len(profiles) > 1 {
		return nil, fmt.Errorf("invalid MIG configuration: more than one MIG device type present on node")
	}
	if strategy == "single" && whole > 0 && len(profiles) > 0 {
		return nil, fmt.Errorf("all devices on the node must be configured with the same migEnabled value")
	}
	return found, nil
}

// offered gives the devices that the kubelet is told of: each gpu or part with the health of its gpu, or so many shares.
func (p plugin) offered() ([]*api.Device, error) {
	list, err := gpus()
	if err != nil {
		return nil, err
	}
	health := map[string]string{}
	for _, one := range list {
		health[one.ID] = one.Health
	}
	ids := []string{}
	for id := range p.devices {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	told := []*api.Device{}
	for number := 0; number < replicas; number++ {
		for _, id := range ids {
			state, there := health[p.devices[id]]
			if !there {
				state = api.Unhealthy
			}
			if replicas > 1 {
				id = fmt.Sprintf("%s::%d", id, number)
			}
			told = append(told, &api.Device{ID: id, Health: state})
		}
	}
	return told, nil
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
	text, err := ioutil.ReadFile(place("devices"))
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

// plugin offers one resource: its devices, each with its gpu.
type plugin struct {
	resource string
	devices  map[string]string
}

// specify writes what containerd puts into a container for each gpu and part: a folder with it alone, and nvidia-smi.
func specify() error {
	type object = map[string]interface{}
	bind := func(from, to string) object {
		return object{"hostPath": from, "containerPath": to, "options": []string{"ro", "rbind", "rprivate"}}
	}
	devices := []object{}
	write := func(index int, id, gpu, state, row string) error {
		own := filepath.Join(cdiRoot, "labgpu", id)
		if err := os.MkdirAll(own, 0755); err != nil {
			return err
		}
		text := fmt.Sprintf("%s %s\n", gpu, state)
		if err := ioutil.WriteFile(filepath.Join(own, "devices"), []byte(text), 0644); err != nil {
			return err
		}
		if err := ioutil.WriteFile(filepath.Join(own, "parts"), []byte(row), 0644); err != nil {
			return err
		}
		mounts := []object{bind(own, filepath.Join(labgpu, "of", id))}
		if node := fmt.Sprintf("/dev/nvidia%d", index); exists(filepath.Join(hostRoot, node)) {
			mounts = append(mounts, bind(node, node))
		}
		devices = append(devices, object{"name": id, "containerEdits": object{"mounts": mounts}})
		return nil
	}
	list, err := gpus()
	if err != nil {
		return err
	}
	for index, one := range list {
		if err := write(index, one.ID, one.ID, one.Health, ""); err != nil {
			return err
		}
		for _, each := range readParts() {
			if each.gpu != one.ID {
				continue
			}
			row := fmt.Sprintf("%s %s %s\n", each.gpu, each.id, each.profile)
			if err := write(index, each.id, one.ID, one.Health, row); err != nil {
				return err
			}
		}
	}
	const tool = "/usr/bin/nvidia-smi"
	all := object{"mounts": []object{bind(tool, tool)}}
	spec := object{"cdiVersion": "0.5.0", "kind": cdiKind, "devices": devices, "containerEdits": all}
	text, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return err
	}
	log.Printf("Generating CDI spec for resource: %s", cdiKind)
	return ioutil.WriteFile(filepath.Join(cdiRoot, "k8s.device-plugin.nvidia.com-gpu.json"), text, 0644)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// named is an answer that names CDI devices for each container (field 5 of ContainerAllocateResponse, since Kubernetes
// 1.28), which the API that this is built against does not have.
type named struct {
	*api.AllocateResponse
	names [][]string
}

func (n *named) Marshal() ([]byte, error) {
	field := func(number byte, content []byte) []byte { // of a length that is told before it
		head := make([]byte, binary.MaxVarintLen64)
		length := binary.PutUvarint(head, uint64(len(content)))
		return append(append([]byte{number<<3 | 2}, head[:length]...), content...)
	}
	all := []byte{}
	for index, one := range n.ContainerResponses {
		text, err := one.Marshal()
		if err != nil {
			return nil, err
		}
		for _, name := range n.names[index] {
			text = append(text, field(5, field(1, []byte(name)))...)
		}
		all = append(all, field(1, text)...)
	}
	return all, nil
}

// name adds to an answer, where gpus are handed out by CDI, the names of what was asked for.
func name(
	ctx context.Context, request interface{}, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (interface{}, error) {
	answer, err := handler(ctx, request)
	asked, isAllocate := request.(*api.AllocateRequest)
	if err != nil || !isAllocate || !byCDI {
		return answer, err
	}
	names := [][]string{}
	for _, container := range asked.ContainerRequests {
		own := []string{}
		for _, id := range unshared(container.DevicesIDs) {
			own = append(own, cdiKind+"="+id)
		}
		names = append(names, own)
	}
	return &named{answer.(*api.AllocateResponse), names}, nil
}

func (plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (p plugin) ListAndWatch(_ *api.Empty, stream api.DevicePlugin_ListAndWatchServer) error {
	last := ""
	for {
		found, err := p.offered()
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

func (p plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		if wanted := len(container.DevicesIDs); onlyOne && wanted > 1 {
			return nil, fmt.Errorf("invalid allocation request for %q: invalid request: maximum request size for "+
				"shared resources is 1; found %d", p.resource, wanted)
		}
		chosen := unshared(container.DevicesIDs)
		ids := strings.Join(chosen, ",")
		log.Printf("Allocate %s", ids)
		response := &api.ContainerAllocateResponse{Envs: map[string]string{}}
		if !byCDI {
			response.Envs["NVIDIA_VISIBLE_DEVICES"] = ids
		}
		if strings.Contains(os.Getenv("DEVICE_LIST_STRATEGY"), "volume-mounts") {
			// The variable then holds the path of the mounts, whatever other strategy is named beside it.
			response.Envs["NVIDIA_VISIBLE_DEVICES"] = mountRoot
			for _, id := range chosen {
				mount := &api.Mount{HostPath: "/dev/null", ContainerPath: filepath.Join(mountRoot, id)}
				response.Mounts = append(response.Mounts, mount)
			}
		}
		if config.Sharing.MPS != nil {
			response.Envs["CUDA_MPS_PIPE_DIRECTORY"] = filepath.Join(mpsRoot, p.resource, "pipe")
			host := filepath.Join(os.Getenv("MPS_ROOT"), p.resource, "pipe")
			pipe := &api.Mount{HostPath: host, ContainerPath: filepath.Join(mpsRoot, p.resource, "pipe")}
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

func (p plugin) serve(path string) (*grpc.Server, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(name))
	api.RegisterDevicePluginServer(server, p)
	go server.Serve(listener)
	return server, nil
}

func (p plugin) register() error {
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
		Version: api.Version, Endpoint: p.endpoint(), ResourceName: p.resource, Options: &api.DevicePluginOptions{}}
	_, err = api.NewRegistrationClient(connection).Register(ctx, request)
	return err
}

// endpoint gives the name of a resource's socket.
func (p plugin) endpoint() string {
	return "nvidia-" + strings.TrimPrefix(p.resource, "nvidia.com/") + ".sock"
}

// round serves and registers once, and ends when the kubelet has made its socket anew.
func (p plugin) round() error {
	before, err := os.Stat(api.KubeletSocket)
	if err != nil {
		return err
	}
	path := filepath.Join(api.DevicePluginPath, p.endpoint())
	server, err := p.serve(path)
	if err != nil {
		return err
	}
	defer server.Stop()
	if err := p.register(); err != nil {
		return err
	}
	log.Printf("Registered device plugin for '%s' with Kubelet", p.resource)
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
	if err := os.MkdirAll(filepath.Join(mpsRoot, shares, "pipe"), 0755); err != nil {
		log.Fatal(err)
	}
	if err := ioutil.WriteFile(filepath.Join(mpsRoot, ".ready"), nil, 0644); err != nil {
		log.Fatal(err)
	}
	log.Printf("Staring MPS daemon for %s (SIMULATED: it divides nothing)", shares)
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
			log.Printf("MPS daemon is healthy resource=%q", shares)
			break
		}
		log.Print("Failed to start plugin: error waiting for MPS daemon: error checking MPS daemon health (SIMULATED)")
		time.Sleep(5 * pollTime)
	}
	byName, err := resources()
	if err != nil {
		log.Fatalf("error starting plugins: error getting plugins: unable to load resource managers to manage plugin "+
			"devices: error building device map: error building device map from config.resources: %v", err)
	}
	if byCDI {
		if err := specify(); err != nil {
			log.Fatalf("error starting plugins: error getting plugins: unable to create cdi spec file: %v", err)
		}
	}
	if len(byName) == 0 {
		log.Print("No devices found. Waiting indefinitely.")
	}
	for resource, devices := range byName {
		if resource == gpu {
			resource = shares
		}
		go plugin{resource, devices}.run()
	}
	for {
		time.Sleep(time.Hour)
	}
}

// run offers one resource for as long as the program runs.
func (p plugin) run() {
	for {
		if err := p.round(); err != nil {
			log.Printf("Could not register with the kubelet, trying again: %v", err)
			time.Sleep(2 * time.Second)
		}
	}
}

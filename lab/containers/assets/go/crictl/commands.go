package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1alpha2"
)

type object = map[string]interface{}

var commands = map[string]func(*session){
	"version": showRuntime, "info": info, "pods": pods, "ps": containers, "logs": logs, "images": images, "img": images,
	"pull": pull, "inspecti": inspectImage, "rmi": removeImages, "stopp": stopPods, "rmp": removePods,
	"stop": stopContainers, "rm": removeContainers,
}

func must(err error, what string, values ...interface{}) {
	if err != nil {
		fail("%s: %v", fmt.Sprintf(what, values...), err)
	}
}

func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	if len(id) > 13 {
		return id[:13]
	}
	return id
}

func printJSON(content interface{}) {
	text, err := json.MarshalIndent(content, "", "  ")
	must(err, "writing JSON")
	fmt.Println(string(text))
}

func showRuntime(s *session) {
	answer, err := s.runtime.Version(s.ctx, &cri.VersionRequest{})
	must(err, "getting the runtime version")
	fmt.Printf("Version:  %s\nRuntimeName:  %s\nRuntimeVersion:  %s\nRuntimeApiVersion:  %s\n",
		answer.Version, answer.RuntimeName, answer.RuntimeVersion, answer.RuntimeApiVersion)
}

func info(s *session) {
	answer, err := s.runtime.Status(s.ctx, &cri.StatusRequest{Verbose: true})
	must(err, "getting status of runtime")
	conditions := []object{}
	for _, item := range answer.Status.Conditions {
		conditions = append(conditions, object{
			"type": item.Type, "status": item.Status, "reason": item.Reason, "message": item.Message})
	}
	whole := object{"status": object{"conditions": conditions}}
	for key, text := range answer.Info {
		var value interface{}
		if json.Unmarshal([]byte(text), &value) != nil {
			value = text
		}
		whole[key] = value
	}
	printJSON(whole)
}

func pods(s *session) {
	answer, err := s.runtime.ListPodSandbox(s.ctx, &cri.ListPodSandboxRequest{})
	must(err, "listing pod sandboxes")
	if !s.quiet {
		fmt.Printf("%-15s %-10s %-45s %-20s %s\n", "POD ID", "STATE", "NAME", "NAMESPACE", "ATTEMPT")
	}
	for _, pod := range answer.Items {
		if s.quiet {
			fmt.Println(pod.Id)
			continue
		}
		state := strings.TrimPrefix(pod.State.String(), "SANDBOX_")
		about := pod.Metadata
		fmt.Printf("%-15s %-10s %-45s %-20s %d\n", short(pod.Id), state, about.Name, about.Namespace, about.Attempt)
	}
}

func listContainers(s *session) []*cri.Container {
	answer, err := s.runtime.ListContainers(s.ctx, &cri.ListContainersRequest{})
	must(err, "listing containers")
	return answer.Containers
}

func containers(s *session) {
	if !s.quiet {
		fmt.Printf("%-15s %-10s %-30s %-8s %s\n", "CONTAINER", "STATE", "NAME", "ATTEMPT", "POD ID")
	}
	for _, item := range listContainers(s) {
		if !s.all && item.State != cri.ContainerState_CONTAINER_RUNNING {
			continue
		}
		if s.quiet {
			fmt.Println(item.Id)
			continue
		}
		state := strings.TrimPrefix(item.State.String(), "CONTAINER_")
		about, pod := item.Metadata, short(item.PodSandboxId)
		fmt.Printf("%-15s %-10s %-30s %-8d %s\n", short(item.Id), state, about.Name, about.Attempt, pod)
	}
}

func logs(s *session) {
	for _, item := range listContainers(s) {
		if !strings.HasPrefix(item.Id, s.word()) {
			continue
		}
		answer, err := s.runtime.ContainerStatus(s.ctx, &cri.ContainerStatusRequest{ContainerId: item.Id})
		must(err, "container status of %s", item.Id)
		file, err := os.Open(answer.Status.LogPath)
		must(err, "log of %s", item.Id)
		defer file.Close()
		_, err = io.Copy(os.Stdout, file)
		must(err, "log of %s", item.Id)
		return
	}
	fail("no container has an ID that begins with %q", s.word())
}

func images(s *session) {
	answer, err := s.images.ListImages(s.ctx, &cri.ListImagesRequest{})
	must(err, "listing images")
	for _, image := range answer.Images {
		if s.quiet {
			fmt.Println(image.Id)
			continue
		}
		fmt.Printf("%-70s %-15s %d\n", strings.Join(image.RepoTags, ","), short(image.Id), image.Size_)
	}
}

func pull(s *session) {
	answer, err := s.images.PullImage(s.ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: s.word()}})
	must(err, "pulling image")
	fmt.Printf("Image is up to date for %s\n", answer.ImageRef)
}

func inspectImage(s *session) {
	answer, err := s.images.ImageStatus(s.ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: s.word()}})
	must(err, "image status for %q request", s.word())
	if answer.Image == nil {
		fail("no such image %q present", s.word())
	}
	printJSON(object{"status": answer.Image})
}

func removeImages(s *session) {
	for _, name := range s.words {
		_, err := s.images.RemoveImage(s.ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: name}})
		must(err, "error of removing image %q", name)
		fmt.Printf("Deleted: %s\n", name)
	}
}

func stopPods(s *session) {
	for _, id := range s.words {
		_, err := s.runtime.StopPodSandbox(s.ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
		must(err, "stopping the pod sandbox %q", id)
		fmt.Printf("Stopped sandbox %s\n", id)
	}
}

func removePods(s *session) {
	for _, id := range s.words {
		_, err := s.runtime.RemovePodSandbox(s.ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
		must(err, "removing the pod sandbox %q", id)
		fmt.Printf("Removed sandbox %s\n", id)
	}
}

func stopContainers(s *session) {
	for _, id := range s.words {
		_, err := s.runtime.StopContainer(s.ctx, &cri.StopContainerRequest{ContainerId: id})
		must(err, "stopping the container %q", id)
		fmt.Println(id)
	}
}

func removeContainers(s *session) {
	for _, id := range s.words {
		_, err := s.runtime.RemoveContainer(s.ctx, &cri.RemoveContainerRequest{ContainerId: id})
		must(err, "removing the container %q", id)
		fmt.Println(id)
	}
}

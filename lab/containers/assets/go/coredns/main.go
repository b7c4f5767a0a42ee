// coredns (stand-in): answers A questions for Services from the API server, and the probes of kubeadm's manifest.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io/ioutil"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	account  = "/var/run/secrets/kubernetes.io/serviceaccount/"
	domain   = ".svc.cluster.local"
	pollTime = 5 * time.Second
)

// zone holds the addresses by lower-case name; nil until the first answer of the API server.
type zone struct {
	sync.RWMutex
	addresses map[string]net.IP
}

func (z *zone) lookup(name string) (net.IP, bool) {
	z.RLock()
	defer z.RUnlock()
	address, found := z.addresses[name]
	return address, found
}

func (z *zone) ready() bool {
	z.RLock()
	defer z.RUnlock()
	return z.addresses != nil
}

func client() (*http.Client, error) {
	pem, err := ioutil.ReadFile(account + "ca.crt")
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &http.Client{Timeout: pollTime, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}, nil
}

func (z *zone) refresh(client *http.Client) error {
	token, err := ioutil.ReadFile(account + "token")
	if err != nil {
		return err
	}
	server := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	request, err := http.NewRequest("GET", "https://"+server+"/api/v1/services", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the API server answered %s", response.Status)
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name, Namespace string }
			Spec     struct{ ClusterIP string }
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		return err
	}
	fresh := map[string]net.IP{}
	for _, service := range list.Items {
		if address := net.ParseIP(service.Spec.ClusterIP).To4(); address != nil {
			fresh[service.Metadata.Name+"."+service.Metadata.Namespace+domain] = address
		}
	}
	z.Lock()
	z.addresses = fresh
	z.Unlock()
	return nil
}

func (z *zone) keepFresh() {
	var http *http.Client
	for {
		var err error
		if http == nil {
			http, err = client()
		}
		if err == nil {
			err = z.refresh(http)
		}
		if err != nil {
			log.Printf("[ERROR] plugin/kubernetes: %v", err)
		}
		time.Sleep(pollTime)
	}
}

// question reads the name, its type and the end of the question section (RFC 1035, section 4.1.2).
func question(packet []byte) (name string, kind uint16, end int, good bool) {
	const header = 12
	labels := []string{}
	at := header
	for at < len(packet) && packet[at] != 0 {
		size := int(packet[at])
		if size > 63 || at+1+size >= len(packet) {
			return "", 0, 0, false
		}
		labels = append(labels, strings.ToLower(string(packet[at+1:at+1+size])))
		at += 1 + size
	}
	if end = at + 5; end > len(packet) {
		return "", 0, 0, false
	}
	return strings.Join(labels, "."), uint16(packet[at+1])<<8 | uint16(packet[at+2]), end, true
}

func (z *zone) answer(packet []byte) []byte {
	name, kind, end, good := question(packet)
	if !good {
		return nil
	}
	reply := append([]byte{}, packet[:end]...)
	reply[2] = 0x84 | packet[2]&1                     // an authoritative answer, recursion as asked for
	reply[3] = 0                                      // no error
	copy(reply[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0}) // one question, no records yet
	address, found := z.lookup(name)
	switch {
	case !found:
		reply[3] = 3 // NXDOMAIN
	case kind == 1: // A
		reply[7] = 1
		const ttl = 30
		reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl, 0, 4) // the name is at offset 12
		reply = append(reply, address...)
	}
	return reply
}

func (z *zone) serveHealth() {
	health, ready := http.NewServeMux(), http.NewServeMux()
	health.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "OK") })
	ready.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		if !z.ready() {
			http.Error(w, "kubernetes", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "OK")
	})
	go func() { log.Fatal(http.ListenAndServe(":8080", health)) }()
	go func() { log.Fatal(http.ListenAndServe(":8181", ready)) }()
}

func main() {
	log.Print("CoreDNS-1.7.0 (a stand-in by the lab: Services only)")
	services := &zone{}
	go services.keepFresh()
	services.serveHealth()
	socket, err := net.ListenPacket("udp", ":53")
	if err != nil {
		log.Fatal(err)
	}
	buffer := make([]byte, 4096)
	for {
		size, sender, err := socket.ReadFrom(buffer)
		if err != nil {
			log.Fatal(err)
		}
		if reply := services.answer(buffer[:size]); reply != nil {
			socket.WriteTo(reply, sender)
		}
	}
}

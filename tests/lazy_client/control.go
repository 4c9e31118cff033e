// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
)

// The messages of protos/strata/control/v1/control.proto, as far as the tests read them.

type layer struct {
	Number         uint64 `protobuf:"varint,1,opt,name=number" json:"number"`
	Reference      string `protobuf:"bytes,2,opt,name=reference" json:"reference"`
	Digest         string `protobuf:"bytes,3,opt,name=digest" json:"digest"`
	Reason         string `protobuf:"bytes,4,opt,name=reason" json:"reason"`
	Detail         string `protobuf:"bytes,5,opt,name=detail" json:"detail"`
	BlobBytes      uint64 `protobuf:"varint,6,opt,name=blob_bytes" json:"blob_bytes"`
	Chunks         uint64 `protobuf:"varint,7,opt,name=chunks" json:"chunks"`
	PresentChunks  uint64 `protobuf:"varint,8,opt,name=present_chunks" json:"present_chunks"`
	AllocatedBytes uint64 `protobuf:"varint,9,opt,name=allocated_bytes" json:"allocated_bytes"`
	Presenter      string `protobuf:"bytes,10,opt,name=presenter" json:"presenter"`
	DiskFull       bool   `protobuf:"varint,11,opt,name=disk_full" json:"disk_full"`
}

type layersRequest struct{}

type layersResponse struct {
	Layers []*layer `protobuf:"bytes,1,rep,name=layers"`
}

type counter struct {
	Name  string `protobuf:"bytes,1,opt,name=name"`
	Value uint64 `protobuf:"varint,2,opt,name=value"`
}

type countersRequest struct{}

type countersResponse struct {
	Counters []*counter `protobuf:"bytes,1,rep,name=counters"`
}

func (m *layer) Reset()                    { *m = layer{} }
func (m *layer) String() string            { return fmt.Sprintf("%+v", *m) }
func (*layer) ProtoMessage()               {}
func (m *layersRequest) Reset()            { *m = layersRequest{} }
func (m *layersRequest) String() string    { return "" }
func (*layersRequest) ProtoMessage()       {}
func (m *layersResponse) Reset()           { *m = layersResponse{} }
func (m *layersResponse) String() string   { return fmt.Sprint(m.Layers) }
func (*layersResponse) ProtoMessage()      {}
func (m *counter) Reset()                  { *m = counter{} }
func (m *counter) String() string          { return fmt.Sprintf("%+v", *m) }
func (*counter) ProtoMessage()             {}
func (m *countersRequest) Reset()          { *m = countersRequest{} }
func (m *countersRequest) String() string  { return "" }
func (*countersRequest) ProtoMessage()     {}
func (m *countersResponse) Reset()         { *m = countersResponse{} }
func (m *countersResponse) String() string { return fmt.Sprint(m.Counters) }
func (*countersResponse) ProtoMessage()    {}

func control(ctx context.Context, connection *grpc.ClientConn, op string, said *answer) error {
	if op == "layers" {
		found := &layersResponse{}
		err := connection.Invoke(ctx, "/strata.control.v1.Control/ListLayers", &layersRequest{}, found)
		said.Layers = found.Layers
		return err
	}
	found := &countersResponse{}
	err := connection.Invoke(ctx, "/strata.control.v1.Control/Counters", &countersRequest{}, found)
	said.Counters = map[string]uint64{}
	for _, row := range found.Counters {
		said.Counters[row.Name] = row.Value
	}
	return err
}

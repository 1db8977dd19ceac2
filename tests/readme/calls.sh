buf curl --http2-prior-knowledge --protocol grpc --data '{"username": "admin", "password": "'"$PASSWORD"'"}' http://127.0.0.1:50051/pilothouse.identity.v1.IdentityService/Login
buf curl --http2-prior-knowledge --protocol grpc --header "authorization: Bearer $TOKEN" --data '{"namespace": "cafe"}' http://127.0.0.1:50051/pilothouse.container.v1.ContainerService/ListContainers
grpcurl -plaintext -H "authorization: Bearer $TOKEN" -d '{"namespace": "cafe"}' 127.0.0.1:50051 pilothouse.container.v1.ContainerService/WatchContainers
kubectl create token pilothouse --namespace pilothouse --duration 720h | pilothouse clusters register second --api-server https://10.0.0.5:6443 --ca-file ca.crt --token-stdin
kubectl create token pilothouse --namespace pilothouse --duration 720h | pilothouse clusters update second --api-server https://10.0.0.5:6443 --ca-file ca.crt --token-stdin
grpcurl -plaintext -d '{"username": "admin", "password": "'"$PASSWORD"'"}' 127.0.0.1:50051 pilothouse.identity.v1.IdentityService/Login
grpcurl -plaintext -H "authorization: Bearer $TOKEN" -d '{"namespace": "demo"}' 127.0.0.1:50051 pilothouse.container.v1.ContainerService/WatchContainers
pilothouse api-keys create report --service-account sa:cafe:ci --read-only --permission container.get --permission container.list
